#!lua
-- commit: what came of an update, and that it is done; all of it, or nothing.
--
-- KEYS  1 front door of the updates
-- ARGV  1 front door of the messages   2 incarnation   3 lane   4 id of the update   5 writes   6 arguments of jobs
--       then four for each write: key, field, value with = before it or '' to delete it, what was seen there: * anything,
--         - nothing, or the sha1 of the value
--       then jobs and messages, eight for each, see door.lua
-- Returns { 0 } when it is stored, now or before, { 1, then the number of each write in whose field is something else, and
-- what there is, or false }, or { 2 } when the update is not this process's any more.

local MESSAGES, process, lane, id, writes, jobs = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local first_job = 7 + 4 * writes
local first_message = first_job + jobs

local function conflicts()
  local found = {}
  for i = 1, writes do
    local key, field, _, was = unpack(ARGV, 3 + 4 * i, 6 + 4 * i)
    if was ~= '*' then
      local is = redis.call('HGET', key, field)
      if (is and redis.sha1hex(is) or '-') ~= was then
        found[#found + 1] = i
        found[#found + 1] = is
      end
    end
  end
  return found
end

local function write()
  for i = 1, writes do
    local key, field, value = unpack(ARGV, 3 + 4 * i, 5 + 4 * i)
    if value == '' then redis.call('HDEL', key, field) else redis.call('HSET', key, field, string.sub(value, 2)) end
  end
end

do -- in the queue of updates
-- include: keys, status, dedup, bell, open, door

  local lease = redis.call('HGET', held_key(process), lane)
  local priority = lease and string.match(lease, '^%d+ %d+ (%a)')
  local head = priority and redis.call('LINDEX', list_key(priority, lane), 0)
  if not head or string.match(head, '^(%S+)') ~= id then return { 2 } end
  if open.is_committed(id) then return { 0 } end
  local found = conflicts()
  if #found > 0 then return { 1, unpack(found) } end
  admit(first_job, first_message - 1)
  write_counts()
  open.commit(id)
end

do -- in the queue of messages
  local KEYS = { MESSAGES }
-- include: keys, status, dedup, bell, open, door

  admit(first_message, #ARGV)
  write_counts()
end

write()
return { 0 }
