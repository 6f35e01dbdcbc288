-- Note that a piece of the entities has every ledger line up to one. When all pieces are noted, these lines are listed.
-- KEYS  store, position, above, pieces, log
-- ARGV  the epoch that was read before the values were written; the piece, of how many; the line; the log's epoch
-- Returns 1, or 0 if Redis was emptied meanwhile. Lines are below 2^53; they are written as the texts that came in.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local whose = ARGV[3] .. ' ' .. ARGV[5]
if redis.call('HGET', KEYS[4], 'whose') ~= whose then
  redis.call('DEL', KEYS[4])  -- pieces of another size, or from another log
  redis.call('HSET', KEYS[4], 'whose', whose)
end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[4])
local least = ARGV[4]
for piece = 0, tonumber(ARGV[3]) - 1 do
  local line = redis.call('HGET', KEYS[4], tostring(piece))
  if not line then return 1 end
  if tonumber(line) < tonumber(least) then least = line end
end
redis.call('DEL', KEYS[4])
redis.call('SET', KEYS[5], ARGV[5])
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(least) then
  redis.call('SET', KEYS[2], least)
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', least)
end
return 1
