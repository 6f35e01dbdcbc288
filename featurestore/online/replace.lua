-- Take a row's values away, or put those of another row in their place, if they are still that row's.
-- KEYS[1]  the entity's hash
-- ARGV     the order field, its bytes as they were read, how many fields to take away, these; then fields and values of
--          the other row, if there is one: HSET's own arguments
-- Returns 1, or 0 if the values are of another row by now.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local last = 3 + tonumber(ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1], unpack(ARGV, 4, last))
if #ARGV > last then redis.call('HSET', KEYS[1], unpack(ARGV, last + 1)) end
return 1
