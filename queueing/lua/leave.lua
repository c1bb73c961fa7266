#!lua flags=allow-oom
-- leave: a process ends cleanly. What it still holds was not sent and goes back to the head of its lanes.
--
-- KEYS  1 front door
-- ARGV  1 incarnation
-- Returns the number of messages given back
-- include: keys, lane, presence

local count = 0
for lane in pairs(leases_of(redis.call('HGETALL', held_key(ARGV[1])))) do
  requeue(lane)
  count = count + 1
end
forget(ARGV[1])
return count
