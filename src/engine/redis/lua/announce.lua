-- Keeps how far the ledger has committed a partition, for the age of its journal. It never goes back.
-- KEYS  1 meta
-- ARGV  1 epoch  2 seq
-- Reply OK
local known = redis.call('HGET', KEYS[1], 'committed') or '0-0'
local epoch, seq = string.match(known, '^(%d+)%-(%d+)$')
local further = tonumber(ARGV[1]) - tonumber(epoch)
if further == 0 then further = tonumber(ARGV[2]) - tonumber(seq) end
if further > 0 then redis.call('HSET', KEYS[1], 'committed', ARGV[1] .. '-' .. ARGV[2]) end
return 'OK'
