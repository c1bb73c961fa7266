#!lua
-- broadcast: takes a broadcast, whose chats may come in several calls. Nothing is sent before the one that starts it;
-- whoever dies in between has begun nothing, and what was kept goes by itself. Once it is started no call changes it.
--
-- KEYS  1 front door
-- ARGV  1 id   2 bot   3 its element, a JSON object, from behind the brace on and without id and chat; '': as it is kept
--       4 what else is to be kept with it: the chat and the message that show its progress, or ''
--       5 draft: only kept; chats: these, and more come; last: these, and it starts; all: it starts, for all subscribers
--       6 messages that may wait at most   then chats
-- Returns its status; '' if it is not known. Error FULL when too many wait: it is not started.
-- include: keys, aliases, door, broadcasts

local id, bot, element, shown, step = unpack(ARGV, 1, 5)
local key = broadcast_key(id)
local status = redis.call('HGET', key, 'status')
if status and status ~= 'draft' then return status end
if not status and element == '' then return '' end
local starts = step == 'last' or step == 'all'
if step ~= 'draft' then
  local many = waiting_messages(true)
  if many >= tonumber(ARGV[6]) then return redis.error_reply('FULL ' .. many .. ' messages wait') end
end

redis.call('HSETNX', key, 'created_at', wall)
redis.call('HSET', key, 'bot', bot, 'status', 'draft')
if element ~= '' then redis.call('HSET', key, 'element', element) end
if shown ~= '' then redis.call('HSET', key, 'shown', shown) end
if #ARGV > 6 then redis.call('SADD', todo_key(id), unpack(canonical_chats(bot, { unpack(ARGV, 7) }))) end
keep(id, starts and KEPT_MS or HOUR_MS)
if not starts then return 'draft' end

local from = step == 'all' and subscribers_key(bot) or todo_key(id)
local total = redis.call('SCARD', from)
status = total == 0 and 'sending' or step == 'all' and 'gathering' or 'spreading'
redis.call('HSET', key, 'status', status, 'total', total, 'all', step == 'all' and 1 or 0, 'started_at', wall)
if total > 0 then redis.call('RPUSH', spreading_key(bot), id) end
redis.call('SADD', running_key(bot), id)
redis.call('ZADD', broadcasts_key(bot), wall, id)
redis.call('ZREMRANGEBYSCORE', broadcasts_key(bot), '-inf', wall - KEPT_MS)
redis.call('PEXPIRE', broadcasts_key(bot), KEPT_MS)
return status
