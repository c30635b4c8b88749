#!lua flags=allow-oom
-- Tells every node how far the ledger has committed a partition, and keeps that, in one step: nobody hears of a commit
-- that the partition does not know of. What is kept never goes back, and belongs to the epoch that is open.
-- KEYS  1 meta
-- ARGV  1 epoch  2 seq (0 and 0 where nothing is to be kept)  3 channel  4 the message
-- Reply OK
local known = redis.call('HMGET', KEYS[1], 'epoch', 'committed')
if known[1] == ARGV[1] then
  local epoch, seq = string.match(known[2] or '0-0', '^(%d+)%-(%d+)$')
  local further = tonumber(ARGV[1]) - tonumber(epoch)
  if further == 0 then further = tonumber(ARGV[2]) - tonumber(seq) end
  if further > 0 then redis.call('HSET', KEYS[1], 'committed', ARGV[1] .. '-' .. ARGV[2]) end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 'OK'
