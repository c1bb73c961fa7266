#!lua
-- enqueue: all of these messages to the front door, or none.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 messages that may wait at most   3 whether those for later count: 1 or 0
--       then those of each message, see door.lua
-- Returns the number taken: 0 when this operation was done before. Error FULL when too many wait.
-- include: keys, status, dedup, bell, open, door

local first = 4
if redis.call('EXISTS', operation_key(ARGV[1])) == 1 then return 0 end
local waiting = waiting_messages(ARGV[3] == '1')
if waiting + (#ARGV - first + 1) / 8 > tonumber(ARGV[2]) then
  return redis.error_reply('FULL ' .. waiting .. ' messages wait')
end
-- Long enough for any second try of the client.
redis.call('SET', operation_key(ARGV[1]), '', 'EX', 60)
local taken = admit(first, #ARGV)
write_counts()
return taken
