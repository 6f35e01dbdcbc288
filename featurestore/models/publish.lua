-- Change what is published of a model: all of it or nothing, and only from the manifest that the caller has seen.
-- KEYS  manifest, prod_models, then the plain keys to write, the plain keys to delete,
--       the chunks of the new manifest, the chunks that only the old one has
-- ARGV  the manifest seen ('' = none), the new manifest, the model's id, '1' if it is in production,
--       how many keys of each of the four kinds, the grace in seconds, then the values of the plain keys to write
-- Returns 1; 0 if the manifest is another by now; -1 if a chunk is not there.
local function of(first, count)
  local keys = {}
  for i = first, first + count - 1 do keys[#keys + 1] = KEYS[i] end
  return keys
end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local writes, deletes = tonumber(ARGV[5]), tonumber(ARGV[6])
local chunks, old_chunks = tonumber(ARGV[7]), tonumber(ARGV[8])
local new = of(3 + writes + deletes, chunks)
for _, key in ipairs(new) do
  if redis.call('EXISTS', key) == 0 then return -1 end
end
for _, key in ipairs(new) do redis.call('PERSIST', key) end
for i = 1, writes do redis.call('SET', KEYS[2 + i], ARGV[9 + i]) end
for _, key in ipairs(of(3 + writes, deletes)) do redis.call('DEL', key) end
redis.call('SET', KEYS[1], ARGV[2])
for _, key in ipairs(of(3 + writes + deletes + chunks, old_chunks)) do redis.call('EXPIRE', key, ARGV[9]) end
if ARGV[4] == '1' then redis.call('SADD', KEYS[2], ARGV[3]) else redis.call('SREM', KEYS[2], ARGV[3]) end
return 1
