#!lua flags=allow-oom
-- Publishes a board's state: kept as the last one, added to the short history, told to every node.
-- KEYS  1 meta  2 top  3 feed
-- ARGV  1 generation  2 seq  3 history kept  4 channel  5 id of the ledger  6 the state
-- Reply 1, or 0 where the generation is not the one shown or the seq is not the next
local meta = redis.call('HMGET', KEYS[1], 'generation', 'seq')
if meta[1] ~= ARGV[1] or tonumber(ARGV[2]) ~= tonumber(meta[2] or 0) + 1 then return 0 end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], ARGV[2] .. '-0', 'state', ARGV[6])
redis.call('SET', KEYS[2], ARGV[6])
redis.call('HSET', KEYS[1], 'seq', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5] .. '\n' .. ARGV[6])
return 1
