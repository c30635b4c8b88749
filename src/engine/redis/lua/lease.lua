#!lua flags=allow-oom
-- Takes a background task, or renews it.
-- KEYS  1 lease
-- ARGV  1 owner  2 ms until it expires
-- Reply 1, or 0 while another owner has it
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  -- No lease has more left than it was taken for, unless the server's clock was set back since. A holder that is gone would
  -- keep it until that time has come again; one that is there renews it long before this ends.
  redis.call('PEXPIRE', KEYS[1], ARGV[2], 'LT')
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
