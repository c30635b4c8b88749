#!lua flags=allow-oom
-- Journals what takes refused entries of a partition back, each once: those up to the last one undone are passed over.
-- KEYS  1 meta  2 journal
-- ARGV  1 epoch  2 now in ms, then for each, in order: seq of the refused entry, signal, product, count, occurred_at
-- Reply EPOCH | OK
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'undone', 'since')
if meta[1] ~= ARGV[1] then return 'EPOCH' end
local undone = tonumber(meta[2] or '0')
for i = 3, #ARGV, 5 do
  local refused = tonumber(ARGV[i])
  if refused > undone then
    redis.call('XADD', KEYS[2], ARGV[1] .. '-*', 'undoes', ARGV[1] .. '-' .. ARGV[i], 'signal', ARGV[i + 1],
      'product', ARGV[i + 2], 'count', ARGV[i + 3], 'occurred_at', ARGV[i + 4], 'recorded_at', ARGV[2])
    undone = refused
  end
end
redis.call('HSET', KEYS[1], 'undone', string.format('%.0f', undone))
if not meta[3] then redis.call('HSET', KEYS[1], 'since', ARGV[2]) end
return 'OK'
