#!lua
-- enqueue: all of these messages to the front door, or none.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 messages that may wait at most   3 whether those for later count: 1 or 0   4 how many they are
--       then those of each message, see door.lua
-- Returns the number taken: 0 when this operation was done before. Error FULL when too many wait.
-- include: keys, status, dedup, bell, open, door

local operation, most, for_later, many = operation_key(ARGV[1]), ARGV[2], ARGV[3] == '1', ARGV[4]
-- Long enough for any second try of the client.
if not redis.call('SET', operation, '', 'EX', 60, 'NX') then return 0 end
local waiting = waiting_messages(for_later)
if waiting + many > tonumber(most) then
  redis.call('DEL', operation)
  return redis.error_reply('FULL ' .. waiting .. ' messages wait')
end
local taken = admit(5, #ARGV)
write_counts()
return taken
