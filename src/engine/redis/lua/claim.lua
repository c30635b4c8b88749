#!lua flags=allow-oom
-- Takes the keys for a ledger, where they are nobody's. This key lies in the same place whatever number of partitions a ledger has.
-- KEYS  1 owner
-- ARGV  1 id of the ledger
-- Reply OK | FOREIGN where they are another ledger's
local owner = redis.call('HGET', KEYS[1], 'ledger')
if owner and owner ~= ARGV[1] then return 'FOREIGN' end
redis.call('HSET', KEYS[1], 'ledger', ARGV[1])
return 'OK'
