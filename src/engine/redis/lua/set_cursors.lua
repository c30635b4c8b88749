#!lua flags=allow-oom
-- Sets the cursors of the generation that is being built, and keeps them as those it was computed at.
-- KEYS  1 meta  2 next cursor
-- ARGV  1 generation, then partition and position of each
-- Reply 1, or 0 where it is not being built
if redis.call('HGET', KEYS[1], 'building') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if #ARGV > 1 then redis.call('HSET', KEYS[2], unpack(ARGV, 2)) end
redis.call('HSET', KEYS[1], 'next_computed_at', table.concat(ARGV, ' ', 2))
return 1
