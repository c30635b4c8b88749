-- What users like, as it is held. No touch: idle time goes on. The users share one partition.
-- KEYS  1 meta, then the likes of each user
-- ARGV  1 epoch  2 products in one reply at most, but for the first user's
-- Reply EPOCH | LIKES, then for each of the first users, as many as there is room for, the products or nil where not loaded
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'EPOCH'} end
local reply, room = {'LIKES'}, tonumber(ARGV[2])
for i = 2, #KEYS do
  local held = redis.call('ZSCORE', KEYS[i], '')
  if held ~= ARGV[1] and held ~= ARGV[1] .. '.5' then
    reply[i] = false
  else
    room = room - redis.call('ZCARD', KEYS[i])
    if i > 2 and room < 0 then break end
    reply[i] = redis.call('ZRANGE', KEYS[i], 0, '+inf', 'BYSCORE')
  end
end
return reply
