-- Write the values of a row unless a newer row of the view version is there. One key, so it runs on any cluster.
-- KEYS[1]  the entity's hash
-- ARGV     the order field and its bytes, then fields and values: HSET's own arguments
-- Returns 1 if written, 0 if stale. An equal row is written again: it fills features that were not online before.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and #stored == 32 then  -- of another length it is damage, which the next row heals
  -- Numbers, not bytes: Lua compares texts by the server's locale.
  local e, c, s, t = struct.unpack('>dddd', stored)
  local ne, nc, ns, nt = struct.unpack('>dddd', ARGV[2])
  if ne < e then return 0 end
  if ne == e then
    if nc < c then return 0 end
    if nc == c and (ns < s or (ns == s and nt < t)) then return 0 end
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
