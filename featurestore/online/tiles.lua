-- Write tiles of a ring, each unless a newer tile, or a newer snapshot of the same one, is in its slot.
-- KEYS[1]  the ring of an entity: a hash, a field per slot
-- ARGV     fields and values: HSET's own arguments; a value starts with its tile and its snapshot, two float64
-- Returns how many were written.
local written = 0
for i = 1, #ARGV, 2 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i])
  local fresh = true
  if stored and #stored >= 16 then  -- shorter is damage, which the next tile heals
    local k, seq = struct.unpack('>dd', stored)
    local nk, nseq = struct.unpack('>dd', ARGV[i + 1])
    fresh = nk > k or (nk == k and nseq >= seq)
  end
  if fresh then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    written = written + 1
  end
end
return written
