#!lua flags=allow-oom
-- Starts a generation in place of one that was begun and never shown.
-- KEYS  1 meta  2 next scores  3 next cursor  4 next beyond
-- ARGV  partition and position of each cursor
-- Reply its number
local number = redis.call('HINCRBY', KEYS[1], 'generations', 1)
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'building', number)
redis.call('HDEL', KEYS[1], 'next_computed_at')
if #ARGV > 0 then redis.call('HSET', KEYS[3], unpack(ARGV)) end
return number
