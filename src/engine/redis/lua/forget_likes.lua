#!lua flags=allow-oom
-- Forgets a user's likes, and the answers of the user's keys. What is left in place of the likes says what the journal holds by
-- now: the member '' has its seq, below 0, and the member 'epoch' its epoch. Who loads the user as of less may lack some of it.
-- KEYS  1 journal  2 the user's likes  3 the user's answers
-- ARGV  1 likes_idle_ms
-- Reply OK
redis.call('UNLINK', KEYS[2], KEYS[3])
if redis.call('EXISTS', KEYS[1]) == 0 then return 'OK' end
local stream = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #stream, 2 do
  if stream[i] == 'last-generated-id' then
    local epoch, seq = string.match(stream[i + 1], '^(%d+)%-(%d+)$')
    redis.call('ZADD', KEYS[2], '-' .. seq, '', epoch, 'epoch')
    redis.call('PEXPIRE', KEYS[2], ARGV[1])
  end
end
return 'OK'
