#!lua flags=allow-oom
-- reap: takes back what processes held that were not heard for the lease time. Whether those messages were sent nobody
-- knows: they are uncertain, and stand at the head of their lanes again.
--
-- KEYS  1 front door
-- ARGV  1 lease, ms   2 heartbeat, ms   3 limits, see limits.lua   4 what is done in doubt: resend or hold
--       5 incarnation of the process that asks   6 its own clock, ms
-- Returns { incarnation, messages taken back, those of them that are held, incarnation, … } of at most ten processes
-- include: keys, clock, status, aliases, limits, outage, open, parents, lane, bury, hold, bell, presence

read_limits(ARGV[3])
keep_time(held_key(ARGV[5]), tonumber(ARGV[6]))
forgive_silence(tonumber(ARGV[1]), tonumber(ARGV[2]))

local ERROR = 'the process that held it was not heard any more; it may have been sent'

-- → whether it is held; nil: it was committed, so nothing is uncertain, and `claim` takes it out
local function take_over(lane, lease, was_alone)
  local priority = lease.priority
  count_departure_of_chat(lane, lease.granted + WRITE_WITHIN_MS)
  local message = head(priority, lane)
  if over(message) == 'done' then
    place(lane, now - FRESH_MS)
    return nil
  end
  local is_held = is_to_be_held(message, ARGV[4])
  if is_held then
    hold_head(lane, priority, ERROR)
  else
    local times = was_alone and poison.MOST or 1
    local attempts = note_try(priority, lane, { taken_over = times, reason = 'taken_over', error = ERROR })
    if message.tracked then
      set_status(message.id, OPEN_STATUS_MS, 'status', 'retrying', 'attempts', attempts, 'error', ERROR)
    end
  end
  end_probe(bot_of_lane(lane), lane)
  place(lane, now - FRESH_MS)
  return is_held
end

local reaped = {}
for _, process in ipairs(redis.call('ZRANGEBYSCORE', PROCESSES, '-inf', now, 'LIMIT', 0, 10)) do
  local recovered, held = 0, 0
  local leases, about = leases_of(redis.call('HGETALL', held_key(process)))
  give_back_alone(leases, about)
  for lane, lease in pairs(leases) do
    local is_held = take_over(lane, lease, lane == about['#alone'])
    if is_held ~= nil then recovered = recovered + 1 end
    if is_held then held = held + 1 end
  end
  forget(process)
  for _, value in ipairs({ process, recovered, held }) do reaped[#reaped + 1] = value end
  count('uncertain', recovered)
  if next(leases) then ring() end
end
write_counts()
return reaped
