#!lua
-- spread: one step of a bot's oldest broadcast that is not in the queue as a whole: chats are collected from its
-- subscribers, or come out of what is to do and into the bot's bulk door, in one. So whoever dies loses and doubles none.
--
-- KEYS  1 front door
-- ARGV  1 bot   2 chats at most   3 messages that may stand at the door   4 messages that may wait at most, in all
-- Returns the number of chats that were looked at; -1 if there is no room; 0 if there is nothing to do
-- include: keys, aliases, bell, door, broadcasts

local bot, most = ARGV[1], tonumber(ARGV[2])
local id = redis.call('LINDEX', spreading_key(bot), 0)
if not id then return 0 end
local key, todo, subscribers = broadcast_key(id), todo_key(id), subscribers_key(bot)
local fields = redis.call('HMGET', key, 'status', 'element', 'spread', 'all', 'cursor')
local status, element, spread, all, cursor = unpack(fields)

local function is_in_the_queue()
  redis.call('HSET', key, 'status', 'sending')
  redis.call('LPOP', spreading_key(bot))
end

-- Some more of the subscribers. They may come twice; what is to do is a set, and nothing of it is taken before the end.
local function gather()
  local reply = redis.call('SSCAN', subscribers, cursor or '0', 'COUNT', most)
  local names, chats = reply[2], canonical_chats(bot, reply[2])
  for i, chat in ipairs(chats) do
    redis.call('SADD', todo, chat)
    if chat ~= names[i] then
      redis.call('SREM', subscribers, names[i])
      redis.call('SADD', subscribers, chat)
    end
  end
  redis.call('HSET', key, 'cursor', reply[1])
  if reply[1] == '0' then -- from the beginning again, for what is to do
    local total = redis.call('SCARD', todo)
    redis.call('HSET', key, 'status', 'spreading', 'total', total)
    if total == 0 then is_in_the_queue() end
  end
  return math.max(1, #names)
end

-- Takes chats out of what is to do. What a look brings beyond `room`, or not at all, comes when the cursor comes round
-- again. SPOP does the same, but takes eight times as long (measured with a million).
local function take(room)
  local reply = redis.call('SSCAN', todo, cursor or '0', 'COUNT', room)
  local chats = { unpack(reply[2], 1, math.min(room, #reply[2])) }
  redis.call('HSET', key, 'cursor', reply[1])
  if #chats > 0 then redis.call('SREM', todo, unpack(chats)) end
  return chats
end

-- Of those taken, who still wants it: nobody gets what he unsubscribed from since.
local function still_wanted(chats)
  if all ~= '1' then return chats end
  local wanted, is = {}, redis.call('SMISMEMBER', subscribers, unpack(chats))
  for i, chat in ipairs(chats) do
    if is[i] == 1 then wanted[#wanted + 1] = chat end
  end
  redis.call('HINCRBY', key, 'recalled', #chats - #wanted)
  return wanted
end

local function put_at_the_door()
  local room = math.min(most, ARGV[3] - redis.call('LLEN', bulk_key(bot)), ARGV[4] - waiting_messages(true))
  if room <= 0 then return -1 end
  local chats, elements = take(room), {}
  local number = tonumber(spread or 0)
  for i, chat in ipairs(#chats > 0 and still_wanted(chats) or {}) do
    elements[i] = string.format('{"accepted":%.0f,"id":"b%s.%d","chat_id":"%s",', wall, id, number + i, chat) .. element
  end
  if #elements > 0 then
    redis.call('RPUSH', bulk_key(bot), unpack(elements))
    redis.call('ZADD', DOORS, 'NX', now, bot)
    redis.call('HINCRBY', key, 'spread', #elements)
    count('doors', #elements)
    ring()
  end
  if redis.call('EXISTS', todo) == 0 then is_in_the_queue() end
  return math.max(1, #chats)
end

local looked_at
if status == 'gathering' then
  looked_at = gather()
elseif status == 'spreading' then
  looked_at = put_at_the_door()
else -- it is no longer known
  redis.call('LPOP', spreading_key(bot))
  return 1
end
keep(id, KEPT_MS)
write_counts()
return looked_at
