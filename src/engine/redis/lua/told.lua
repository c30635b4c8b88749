-- Shared by the scripts that read many scores, and put in front of them. See exact.lua: a score at a bound may stand for more.
-- Puts that in its place among places in order, product and score of each: the first and the last ones are at a bound, if any is.
local MAX, MIN = '9007199254740991', '-9007199254740991'
local function told(places, beyond)
  local i, last = 2, #places
  while i <= last and (places[i] == MAX or places[last] == MIN) do
    local at = places[i] == MAX and i or last
    places[at] = redis.call('HGET', beyond, places[at - 1]) or places[at]
    if at == i then i = i + 2 else last = last - 2 end
  end
  return places
end
