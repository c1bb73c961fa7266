#!lua flags=allow-oom
-- reap: takes back what processes held that were not heard for the lease time. Whether those messages were sent nobody
-- knows: they are uncertain, and stand at the head of their lanes again.
--
-- KEYS  1 front door
-- ARGV  1 lease, ms   2 heartbeat, ms   3 limits, see limits.lua
-- Returns { incarnation, messages taken back, incarnation, … } of at most ten processes
-- include: keys, status, limits, outage, lane, presence

read_limits(ARGV[3])
forgive_silence(tonumber(ARGV[1]), tonumber(ARGV[2]))

local reaped = {}
for _, process in ipairs(redis.call('ZRANGEBYSCORE', PROCESSES, '-inf', now, 'LIMIT', 0, 10)) do
  local recovered = 0
  for lane, lease in pairs(leases_of(redis.call('HGETALL', held_key(process)))) do
    local error = 'the process that held it was not heard any more; it may have been sent'
    local attempts = note_try(lease.priority, lane, { taken_over = 1, reason = 'taken_over', error = error })
    local message = head(lease.priority, lane)
    if message.tracked then
      set_status(message.id, OPEN_STATUS_MS, 'status', 'retrying', 'attempts', attempts, 'error', error)
    end
    end_probe(bot_of_lane(lane), lane)
    place(lane, now - FRESH_MS)
    recovered = recovered + 1
  end
  forget(process)
  reaped[#reaped + 1] = process
  reaped[#reaped + 1] = recovered
  if recovered > 0 then
    count('uncertain', recovered)
    if redis.call('SPOP', IDLE) and redis.call('LLEN', FRONT) == 0 then redis.call('RPUSH', FRONT, BELL) end
  end
end
write_counts()
return reaped
