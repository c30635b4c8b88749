-- Shared by the scripts that write to a journal, and put in front of them.
-- Whether the oldest entry that the ledger does not have is `age_max` ms old, or older. `since`, kept in the meta hash, is
-- a time before which no such entry was recorded: while that is young enough, nothing needs to be read. A stream is
-- looked at once in `age_max` at most, and not at every like, which would cost a seventh of the script.
local function is_too_old(meta, journal, committed, since, now, age_max)
  if not since or now - tonumber(since) < age_max then return false end
  local first = redis.call('XRANGE', journal, '(' .. committed, '+', 'COUNT', 1)[1]
  local recorded_at
  if first then
    for i = 1, #first[2], 2 do
      if first[2][i] == 'recorded_at' then recorded_at = tonumber(first[2][i + 1]) end
    end
  end
  redis.call('HSET', meta, 'since', string.format('%.0f', recorded_at or now))
  return recorded_at ~= nil and now - recorded_at >= age_max
end
