-- List ledger lines as pushed, if Redis still has what this connection has written since it read the epoch.
-- KEYS  store, position, above
-- ARGV  the epoch that was read before the values were written, then commit_seqs
-- Returns 1, or 0 if Redis was emptied meanwhile. commit_seqs are below 2^53, so Lua compares them exactly; they are
-- written as the texts that came in, never as Lua would print them.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local position = tonumber(redis.call('GET', KEYS[2]) or '0')
for i = 2, #ARGV do
  if tonumber(ARGV[i]) > position then redis.call('ZADD', KEYS[3], ARGV[i], ARGV[i]) end
end
return 1
