-- Empties a partition's journal, begins it at <epoch>-0 and takes writes again.
-- KEYS  1 meta  2 journal
-- ARGV  1 epoch
-- Reply OK
redis.call('UNLINK', KEYS[1], KEYS[2])
-- The marker at <epoch>-0 makes the first entry <epoch>-1. Trimming it leaves an empty stream that remembers it.
redis.call('XADD', KEYS[2], ARGV[1] .. '-0', 'epoch', ARGV[1])
redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'committed', ARGV[1] .. '-0')
return 'OK'
