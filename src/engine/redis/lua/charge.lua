#!lua flags=allow-oom
-- Counts likes against a user's rate after the fact, as like.lua counts one. No more than a whole burst is owed.
-- KEYS  1 the user's rate
-- ARGV  1 now in ms  2 likes  3 interval of the rate in µs  4 burst in µs  5 ms that the rate is kept beyond its use
-- Reply OK
local now_us, interval, burst = tonumber(ARGV[1]) * 1000, tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = math.max(now_us, tonumber(redis.call('GET', KEYS[1]) or now_us))
local arrival = math.min(stored + tonumber(ARGV[2]) * interval, now_us + burst)
local ttl_ms = math.ceil((arrival - now_us) / 1000) + tonumber(ARGV[5])
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', string.format('%.0f', ttl_ms))
return 'OK'
