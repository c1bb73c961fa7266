#!lua flags=allow-oom
-- cancel: a tracked message that is not in flight will not be sent. It is marked here, and taken out of its lane when it
-- is the head (grant.lua).
--
-- KEYS  1 front door
-- ARGV  1 id
-- Returns its state now: cancelled, also a second time, or the one that is in the way; nil if the id is unknown
-- include: keys, aliases, status, bell, open, parents, lane, holder

local id = ARGV[1]
local state, bot, chat = unpack(redis.call('HMGET', status_key(id), 'status', 'bot', 'chat'))
if state ~= 'pending' and state ~= 'retrying' and state ~= 'sending' then return state end
if not bot then return nil end -- its status has expired while it waited: where it is, nobody knows

for _, lane in ipairs(lanes_of_chat(bot .. ':' .. chat)) do
  local held = in_flight(lane)
  for _, priority in ipairs(PRIORITIES) do
    local first = head(priority, lane)
    if first and first.id == id then
      if held == priority then return 'sending' end
      -- It may have been waiting for its next try: those behind it must not. (What is being merged has another head.)
      if not merging[lane] then redis.call('HDEL', TRIES, priority .. ' ' .. lane) end
      if redis.call('ZSCORE', DUE, lane) then
        -- It may be ready for a lower priority as well; claim, if nothing is tried any more, would not ask.
        leave_ready(lane)
        redis.call('ZADD', DUE, now, lane)
      end
    end
  end
end
redis.call('HSET', status_key(id), 'status', 'cancelled')
count('cancelled', 1)
write_counts()
ring()
return 'cancelled'
