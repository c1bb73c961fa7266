-- ring: wakes a process that waits, unless what stands at the front door does.
local function ring()
  if redis.call('SPOP', IDLE) and redis.call('LLEN', FRONT) == 0 then redis.call('RPUSH', FRONT, BELL) end
end
