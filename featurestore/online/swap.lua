-- Put other values in the place of fields, or take them away, where they are still what they were when they were read.
-- KEYS[1]  a hash
-- ARGV     per field: its name, the value that was read, the new one (empty: none)
-- Returns how many were swapped.
local swapped = 0
for i = 1, #ARGV, 3 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    if ARGV[i + 2] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
    else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
    swapped = swapped + 1
  end
end
return swapped
