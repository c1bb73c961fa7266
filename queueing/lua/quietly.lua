-- quietly: a process that takes next what it brings itself puts it to where the bell puts things, and rings for nobody.
-- It goes before nothing: where others stand at the front door, it stands behind them. What is there is soon taken, since
-- each that brings something claims; if one dies meanwhile, the next that looks finds it.
local QUIETLY_MOST = 50
local function may_come_quietly()
  return redis.call('LLEN', FRONT) == 0 and redis.call('LLEN', HANDOFF) < QUIETLY_MOST
end
