-- Every key that a script touches. The data model is described in queueing/keys.py; a test holds the two together.
-- KEYS[1]: the front door. The hash tag puts all other keys into its cluster slot.
local FRONT = KEYS[1]
local P = '{' .. FRONT .. '}:'
local HANDOFF = P .. 'handoff'
local READY = P .. 'ready'
local DUE = P .. 'due'
local PROCESSES = P .. 'processes'
local IDLE = P .. 'idle'
local TRIES = P .. 'tries'
local DEAD = P .. 'dead'
local DEAD_INDEX = P .. 'dead:index'
local TOKENS = P .. 'tokens'
local NEW_TOKENS = P .. 'tokens:new'
local TOTALS = P .. 'totals'

local function lane_key(lane) return P .. 'lane:' .. lane end
local function held_key(process) return P .. 'held:' .. process end
local function status_key(id) return P .. 'msg:' .. id end
local function operation_key(id) return P .. 'op:' .. id end

-- An element that is no message: it wakes a process that waits at the front door.
local BELL = 'telequeue:bell'

local clock = redis.call('TIME')
-- Milliseconds since 1970 by the server's clock, the only one that all processes share.
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
