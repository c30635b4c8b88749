-- Adds a batch's deltas and moves the cursor, if the partition's cursor is where the batch begins.
-- KEYS  1 meta  2 scores  3 cursor  4 next scores  5 next cursor
-- ARGV  1 generation  2 partition  3 from  4 to, then product and delta of each
-- Reply 1, or 0 where nothing was done
-- Points are whole numbers within ±(2^53 - 1), which doubles hold exactly; a sum beyond is cut to that.
local MAX = 9007199254740991
local numbers = redis.call('HMGET', KEYS[1], 'generation', 'building')
local scores, cursor
if numbers[1] == ARGV[1] then
  scores, cursor = KEYS[2], KEYS[3]
elseif numbers[2] == ARGV[1] then
  scores, cursor = KEYS[4], KEYS[5]
else
  return 0
end
if redis.call('HGET', cursor, ARGV[2]) ~= ARGV[3] then return 0 end
for i = 5, #ARGV, 2 do
  local points = tonumber(redis.call('ZINCRBY', scores, ARGV[i + 1], ARGV[i]))
  if points == 0 then
    redis.call('ZREM', scores, ARGV[i])
  elseif points > MAX then
    redis.call('ZADD', scores, string.format('%.0f', MAX), ARGV[i])
  elseif points < -MAX then
    redis.call('ZADD', scores, string.format('%.0f', -MAX), ARGV[i])
  end
end
redis.call('HSET', cursor, ARGV[2], ARGV[4])
return 1
