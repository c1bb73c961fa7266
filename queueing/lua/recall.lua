#!lua flags=allow-oom
-- recall: nothing of a broadcast that has not left will be sent.
--
-- KEYS  1 front door
-- ARGV  1 id
-- Returns its status: cancelled, also a second time, or done if that came first; dropped if it was not started; '' if it
-- is not known
-- include: keys, aliases, bell, recall_group, broadcasts

local id = ARGV[1]
local key = broadcast_key(id)
local status, bot, total, spread, recalled, finished =
  unpack(redis.call('HMGET', key, 'status', 'bot', 'total', 'spread', 'recalled', 'finished_at'))
if not status then return '' end
redis.call('UNLINK', todo_key(id))
if status == 'draft' then
  redis.call('UNLINK', key)
  return 'dropped'
end
if status == 'cancelled' then return status end
if finished then return 'done' end
recall_group(id)
redis.call('LREM', spreading_key(bot), 0, id)
redis.call('HSET', key, 'status', 'cancelled', 'recalled', total - tonumber(spread or 0))
ring()
return 'cancelled'
