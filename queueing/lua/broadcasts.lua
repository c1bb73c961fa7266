-- Broadcasts: one body for many chats. Their keys stand here, since claim.lua has no room for more names.
local function broadcast_key(id) return P .. 'broadcast:' .. id end
local function todo_key(id) return P .. 'todo:' .. id end
local function subscribers_key(bot) return P .. 'subscribers:' .. bot end
local function broadcasts_key(bot) return P .. 'broadcasts:' .. bot end
local function running_key(bot) return P .. 'running:' .. bot end
local function spreading_key(bot) return P .. 'spreading:' .. bot end

local HOUR_MS, KEPT_MS = 3600 * 1000, 30 * 24 * 3600 * 1000

-- For how long a broadcast is known, from now.
local function keep(id, ms)
  redis.call('PEXPIRE', broadcast_key(id), ms)
  redis.call('PEXPIRE', todo_key(id), ms)
end

-- The chats, each by the one name that is known of it.
local function canonical_chats(bot, chats)
  local found = {}
  for i, chat in ipairs(chats) do
    found[i] = string.match(canonical(bot .. ':' .. chat), ':(.*)$')
  end
  return found
end
