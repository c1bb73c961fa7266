#!lua
-- enqueue: all of these messages to the front door, or none.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 messages that may wait at most
--       then for each message: element, id if tracked or '', bot, chat
-- Returns the number taken: 0 when this operation was done before. Error FULL when too many wait.
-- A tracked id that is known already is not taken again.
-- include: keys, lane

local first = 3
if redis.call('EXISTS', operation_key(ARGV[1])) == 1 then return 0 end
local waiting = redis.call('LLEN', FRONT) + tonumber(redis.call('HGET', TOTALS, 'laned') or 0)
if waiting + (#ARGV - first + 1) / 4 > tonumber(ARGV[2]) then
  return redis.error_reply('FULL ' .. waiting .. ' messages wait')
end
-- Long enough for any second try of the client.
redis.call('SET', operation_key(ARGV[1]), '', 'EX', 60)

local elements = {}
for i = first, #ARGV, 4 do
  local element, id, bot, chat = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if id == '' or redis.call('HSETNX', status_key(id), 'status', 'pending') == 1 then
    if id ~= '' then set_status(id, OPEN_STATUS_MS, 'created_at', now, 'bot', bot, 'chat', chat) end
    elements[#elements + 1] = string.format('{"accepted":%.0f,', now) .. string.sub(element, 2)
  end
end
for i = 1, #elements, 1000 do
  redis.call('RPUSH', FRONT, unpack(elements, i, math.min(i + 999, #elements)))
end
return #elements
