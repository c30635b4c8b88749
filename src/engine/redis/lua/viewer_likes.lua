-- When a user liked each product. Counts as a touch: the idle time starts again.
-- KEYS  1 meta  2 the user's likes
-- ARGV  1 epoch  2 likes_idle_ms, then the products
-- Reply EPOCH | NOT_LOADED | LIKES, then liked_at or nil of each product
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'EPOCH'} end
local held = redis.call('ZSCORE', KEYS[2], '')
if held ~= ARGV[1] and held ~= ARGV[1] .. '.5' then return {'NOT_LOADED'} end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local reply = {'LIKES'}
-- In calls of 1,000, since Lua's stack holds some 8,000 values.
for from = 3, #ARGV, 1000 do
  local scores = redis.call('ZMSCORE', KEYS[2], unpack(ARGV, from, math.min(from + 999, #ARGV)))
  for i = 1, #scores do
    -- Below 0 it was unliked of late.
    reply[#reply + 1] = scores[i] and string.sub(scores[i], 1, 1) ~= '-' and scores[i]
  end
end
return reply
