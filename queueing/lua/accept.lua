#!lua
-- accept: an update to the front door, unless it was taken before.
--
-- KEYS  1 front door
-- ARGV  1 operation id   2 updates that may wait at most   3 element   4 id   5 its bot's block of numbers, as BOT:BLOCK
--       6 its bit in the block   7 s for which the block is kept   8 whether this process claims next: 1 or ''
-- Returns 0: it was taken, now or by this operation; 1: before, and it has not ended; 2: before, and it has;
--         3: it was taken, and nobody was woken for it: this process is to claim now.
-- Error FULL when too many wait.
-- include: keys, status, dedup, bell, open, door, quietly

local operation, most, element, id, block, bit, kept, here = unpack(ARGV)
local NUMBERS = P .. 'numbers:' .. block
if redis.call('GETBIT', NUMBERS, bit) == 1 then
  if redis.call('EXISTS', operation_key(operation)) == 1 then return 0 end
  return open.is_open(id) and 1 or 2
end
local waiting = waiting_messages(false) -- jobs for later are no backlog
if waiting >= tonumber(most) then return redis.error_reply('FULL ' .. waiting .. ' updates wait') end
redis.call('SETBIT', NUMBERS, bit, 1)
redis.call('EXPIRE', NUMBERS, kept)
-- Long enough for any second try of the client.
redis.call('SET', operation_key(operation), '', 'EX', 60)
open.add(id)
local quietly = here == '1' and may_come_quietly()
local taken = string.format('{"accepted":%.0f,"open":true,', wall) .. string.sub(element, 2)
redis.call('RPUSH', quietly and HANDOFF or FRONT, taken)
return quietly and 3 or 0
