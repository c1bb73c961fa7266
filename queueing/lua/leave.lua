#!lua flags=allow-oom
-- leave: a process ends cleanly. What it still holds was not sent and goes back to the head of its lanes.
--
-- KEYS  1 front door
-- ARGV  1 incarnation   2 limits, see limits.lua
-- Returns the number of messages given back
-- include: keys, status, aliases, limits, outage, open, parents, lane, presence

read_limits(ARGV[2])
local given_back = 0
local leases, about = leases_of(redis.call('HGETALL', held_key(ARGV[1])))
give_back_alone(leases, about)
for lane, lease in pairs(leases) do
  count_departure_of_chat(lane, lease.granted + WRITE_WITHIN_MS) -- it was written perhaps, and cut off then
  give_back(lane, lease)
  given_back = given_back + 1
end
forget(ARGV[1])
return given_back
