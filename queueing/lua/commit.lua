#!lua flags=allow-oom
-- commit: what came of an update, and that it is done; all of it, or nothing. A full server takes it: else nothing that
-- waits there would ever end, and each handler would be run again and again.
--
-- KEYS  1 front door of the updates
-- ARGV  1 front door of the messages   2 incarnation   3 lane   4 id of the update   5 of one that is to be a dead letter,
--       the reason, a line's end and the error   6 writes   7 arguments of jobs
--       8 whether this process claims next what it sends: 1 or ''
--       then those of the writes, five for each, see writes.lua
--       then those of jobs and of messages, see door.lua
-- Returns { 0 } when it is stored, now or before, { 1, and what writes.conflicts found }, { 2 } when the update is not this
-- process's any more, or { 3 } when it is stored, and nobody was woken for what is sent: this process is to claim now.
-- include: keys, status, dedup, bell, open, door, quietly, writes

local MESSAGES, process, lane, id, failed = unpack(ARGV, 1, 5)
local many, jobs = tonumber(ARGV[6]), tonumber(ARGV[7])
local here = ARGV[8] == '1'
local first_write = 9
local first_job = first_write + 5 * many
local first_message = first_job + jobs

-- In the queue of updates:
local lease = redis.call('HGET', held_key(process), lane)
local priority = lease and string.match(lease, '^%d+ %d+ (%a)')
local head = priority and redis.call('LINDEX', list_key(priority, lane), 0)
if not head or string.match(head, '^(%S+)') ~= id then return { 2 } end
if open.is_committed(id) then return { 0 } end
local found = writes.conflicts(ARGV, first_write, many)
if #found > 0 then return { 1, unpack(found) } end
admit(ARGV, first_job, first_message - 1)
write_counts()
open.commit(id, failed)

-- In the queue of messages:
start({ MESSAGES })
local quietly = here and first_message <= #ARGV and may_come_quietly()
if quietly then FRONT = HANDOFF end
admit(ARGV, first_message, #ARGV)
write_counts()

writes.apply(ARGV, first_write, many)
return { quietly and 3 or 0 }
