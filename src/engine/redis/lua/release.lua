-- Gives a background task back, if it is the owner's.
-- KEYS  1 lease
-- ARGV  1 owner
-- Reply 1, or 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
