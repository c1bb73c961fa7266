#!lua
-- enqueue: all of these messages to the front door, or none.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 messages that may wait at most
--       then for each message: element, id, marks: t if it is tracked, v if
--       it is provisional, o if others may wait for it in another way; bot, chat, its door: n or b,
--       send_at in ms or 0, dedup key or ''
-- Returns the number taken: 0 when this operation was done before. Error FULL when too many wait.
-- An id that is tracked or open, or was provisional, and is known already is not taken again, nor is a second message with a dedup key of the last 24 h.
-- include: keys, status, dedup, bell, open

local first = 3
if redis.call('EXISTS', operation_key(ARGV[1])) == 1 then return 0 end
local waiting = redis.call('LLEN', FRONT) + redis.call('ZCARD', SCHEDULED)
for _, many in ipairs(redis.call('HMGET', TOTALS, 'doors', 'laned:i', 'laned:n', 'laned:b')) do
  waiting = waiting + tonumber(many or 0)
end
if waiting + (#ARGV - first + 1) / 8 > tonumber(ARGV[2]) then
  return redis.error_reply('FULL ' .. waiting .. ' messages wait')
end
-- Long enough for any second try of the client.
redis.call('SET', operation_key(ARGV[1]), '', 'EX', 60)

local front, bulk = {}, {} -- elements; bulk: bot → its elements
for i = first, #ARGV, 8 do
  local element, id, marks, bot, chat, door, send_at, key = unpack(ARGV, i, i + 7)
  local tracked, opens = string.find(marks, 't'), string.find(marks, '[vo]')
  local known = tracked and redis.call('EXISTS', status_key(id)) == 1 or opens and open.knows(id)
  if not known and key ~= '' and not claim_dedup_key(bot, key, id) then
    known = true
    if string.find(marks, 'v') then open.keep(id, '!deduplicated') end
  end
  if not known then
    if opens then open.add(id) end
    if tracked then open_status(id, tonumber(send_at), 'created_at', wall, 'bot', bot, 'chat', chat) end
    local to = front
    if door == 'b' then
      bulk[bot] = bulk[bot] or {}
      to = bulk[bot]
    end
    to[#to + 1] = string.format('{"accepted":%.0f,', wall) .. string.sub(element, 2)
  end
end
local function put(key, elements)
  for i = 1, #elements, 1000 do
    redis.call('RPUSH', key, unpack(elements, i, math.min(i + 999, #elements)))
  end
  return #elements
end
local taken = put(FRONT, front)
for bot, elements in pairs(bulk) do
  taken = taken + put(bulk_key(bot), elements)
  redis.call('ZADD', DOORS, 'NX', now, bot)
  count('doors', #elements)
end
-- Nobody listens at the doors of bulk.
if next(bulk) then ring() end
write_counts()
return taken
