-- Note which version of a view is active, unless a later choice of the same database is there.
-- KEYS[1]  the hash of the active versions
-- ARGV     view, version, commit_seq, epoch of the database; any number of times
-- commit_seqs are below 2^53, so Lua compares them exactly.
for i = 1, #ARGV, 4 do
  local stored = redis.call('HGET', KEYS[1], ARGV[i]) or ''
  local seq, epoch = string.match(stored, '^%d+ (%d+) (.*)$')
  if epoch ~= ARGV[i + 3] or tonumber(seq) <= tonumber(ARGV[i + 2]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
  end
end
return 1
