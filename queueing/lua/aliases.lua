-- The names of a chat. ALIASES: lane → the chat that it stands for, never itself a name of another; beside it, under
-- "names LANE", the other names of that chat. Where there is no alias, nothing is asked but whether there is any.
-- What is rare is asked for in one question with all else that is.
local any_rare = redis.call('EXISTS', ALIASES, PAUSED, OUTAGES, TRIES) > 0
local any_alias = any_rare and redis.call('EXISTS', ALIASES) == 1

-- → the one lane of a chat, whatever it is called here
local function canonical(lane)
  local chat = any_alias and redis.call('HGET', ALIASES, lane)
  return chat and bot_of_lane(lane) .. ':' .. chat or lane
end

-- MERGING: "from to" of lanes that are one and not merged yet, in the order in which that was said.
local merges = any_alias and redis.call('ZRANGE', MERGING, 0, -1) or {}
local merging = {} -- lane → in how many of them

local function lanes_of_merge(merge) return string.match(merge, '^(%S+) (%S+)$') end

local function note_merge(merge, by)
  for _, lane in ipairs({ lanes_of_merge(merge) }) do
    local many = (merging[lane] or 0) + by
    merging[lane] = many > 0 and many or nil
  end
end

for _, merge in ipairs(merges) do note_merge(merge, 1) end

-- → all lanes in which messages of this chat may stand: more than one only while they are merged
local function lanes_of_chat(lane)
  local one = canonical(lane)
  local lanes = { one }
  for other in pairs(merging) do
    if other ~= one and canonical(other) == one then lanes[#lanes + 1] = other end
  end
  return lanes
end
