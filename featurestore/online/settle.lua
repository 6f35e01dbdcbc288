-- Move the position over the first of the lines that are listed above it, without a gap; never back.
-- KEYS  position, above
-- ARGV  `base`, then the commit_seqs of all ledger lines above base, ascending
-- Returns the position. If it is below base, Redis was emptied and nothing moves: lines up to base are not in ARGV.
local position = redis.call('GET', KEYS[1]) or '0'
if tonumber(position) < tonumber(ARGV[1]) then return position end
local start = position
for i = 2, #ARGV do
  if tonumber(ARGV[i]) > tonumber(position) then
    if not redis.call('ZSCORE', KEYS[2], ARGV[i]) then break end
    position = ARGV[i]
  end
end
if position ~= start then
  redis.call('SET', KEYS[1], position)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', position)
end
return position
