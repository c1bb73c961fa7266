#!lua
-- enqueue: all of these messages to the front door, or none.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 messages that may wait at most
--       then for each message: element, id if tracked or '', bot, chat, its door: n or b
-- Returns the number taken: 0 when this operation was done before. Error FULL when too many wait.
-- A tracked id that is known already is not taken again.
-- include: keys, status

local first = 3
if redis.call('EXISTS', operation_key(ARGV[1])) == 1 then return 0 end
local waiting = redis.call('LLEN', FRONT) + redis.call('LLEN', BULK)
for _, laned in ipairs(redis.call('HMGET', TOTALS, 'laned:i', 'laned:n', 'laned:b')) do
  waiting = waiting + tonumber(laned or 0)
end
if waiting + (#ARGV - first + 1) / 5 > tonumber(ARGV[2]) then
  return redis.error_reply('FULL ' .. waiting .. ' messages wait')
end
-- Long enough for any second try of the client.
redis.call('SET', operation_key(ARGV[1]), '', 'EX', 60)

local doors = { n = {}, b = {} }
for i = first, #ARGV, 5 do
  local element, id, bot, chat, door = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], doors[ARGV[i + 4]]
  if id == '' or redis.call('HSETNX', status_key(id), 'status', 'pending') == 1 then
    if id ~= '' then set_status(id, OPEN_STATUS_MS, 'created_at', now, 'bot', bot, 'chat', chat) end
    door[#door + 1] = string.format('{"accepted":%.0f,', now) .. string.sub(element, 2)
  end
end
local function put(key, elements)
  for i = 1, #elements, 1000 do
    redis.call('RPUSH', key, unpack(elements, i, math.min(i + 999, #elements)))
  end
  return #elements
end
local taken = put(FRONT, doors.n) + put(BULK, doors.b)
-- Nobody listens at the door for bulk.
if #doors.b > 0 and redis.call('SPOP', IDLE) and redis.call('LLEN', FRONT) == 0 then redis.call('RPUSH', FRONT, BELL) end
return taken
