-- drain: elements from the hand-off list, then from the front door, into their lanes, at most `most` of them.
-- What cannot be placed goes to the dead letters; the rest of the checks is the reader's (queueing/message.py, decode).

local function given(value)
  if value ~= nil and value ~= cjson.null then return value end
end

-- Keeps a token that came with a message: the first that is seen of a bot, later ones beside it.
local noted = {}
local function note_token(bot, token)
  if noted[bot] == token then return end
  noted[bot] = token
  if redis.call('HSETNX', TOKENS, bot, token) == 0 and redis.call('HGET', TOKENS, bot) ~= token then
    redis.call('HSET', NEW_TOKENS, bot, token)
  end
end

-- → bot, or nil and what is wrong
local function bot_of(fields, default_bot)
  local token = given(fields.bot_token)
  if token then
    local bot = type(token) == 'string' and string.match(token, '^%d+$')
    if bot then return bot end -- it stands for a token that was taken out before
    bot = type(token) == 'string' and string.match(token, '^(%d+):[%w_-]+$')
    if not bot then return nil, 'bot_token must look like 123456:ABC-DEF' end
    note_token(bot, token)
    return bot
  end
  local bot = given(fields.bot) or default_bot
  if bot == '' then return nil, 'bot_token is missing, and no bot is configured' end
  if type(bot) ~= 'string' or #bot > 64 or not string.match(bot, '^[%w_-]+$') then
    return nil, 'bot must be the number of a bot, as a string'
  end
  return bot
end

-- → the one name of the chat ('' if none is given), or nil and what is wrong. The rule of message.canonical_chat.
local function chat_of(fields)
  local chat = given(fields.chat_id)
  if not chat and type(fields.kwargs) == 'table' then chat = given(fields.kwargs.chat_id) end
  if not chat then return '' end
  local number = type(chat) == 'number' and chat
  if type(chat) == 'string' then
    local name = string.match(chat, '^%s*(.-)%s*$')
    if string.match(name, '^@[%w_]+$') and #name <= 65 then return string.lower(name) end
    number = string.match(name, '^-?%d+$') and #name <= 17 and tonumber(name)
  end
  if number and number == math.floor(number) and math.abs(number) < 2 ^ 53 then
    return string.format('%.0f', number)
  end
  return nil, 'chat_id must be a whole number or an @name'
end

local function id_of(fields)
  local id = given(fields.id)
  if not id then return 'q-' .. redis.call('HINCRBY', TOTALS, 'ids', 1) end
  if type(id) == 'string' and #id <= 128 and string.match(id, '^[%w_.:@+-]+$') then return id end
  return nil, 'id must be 1 to 128 letters, digits or any of _ . : @ + -'
end

-- The token is kept once, by bot; in the element the bot's number stands for it.
local function without_token(element, fields, bot)
  if not given(fields.bot_token) then return element end
  local _, from = string.find(element, '"bot_token"', 1, true)
  local first, last = string.find(element, fields.bot_token, from or 1, true)
  if not first then return element end
  return string.sub(element, 1, first - 1) .. bot .. string.sub(element, last + 1)
end

-- Bulk waits at a door of its own until the look-ahead takes it, so that a million of it cost a list of elements.
local LOOK_AHEAD = 1000 -- bulk messages in lanes at most

local function to_bulk_door(element, fields, bot)
  element = without_token(element, fields, bot)
  if not given(fields.accepted) then element = string.format('{"accepted":%.0f,', now) .. string.sub(element, 2) end
  redis.call('RPUSH', BULK, element)
end

-- → nil, or what is wrong with the element. from: the door that it came to.
local function put_into_lane(element, default_bot, from)
  local ok, fields = pcall(cjson.decode, element)
  if not ok or type(fields) ~= 'table' or not string.match(element, '^{') then return 'not a JSON object' end
  local bot, chat, id, wrong
  bot, wrong = bot_of(fields, default_bot)
  if not bot then return wrong end
  chat, wrong = chat_of(fields)
  if not chat then return wrong end
  if fields.priority == 'bulk' and from ~= BULK then return to_bulk_door(element, fields, bot) end
  id, wrong = id_of(fields)
  if not id then return wrong end

  local accepted = type(fields.accepted) == 'number' and math.max(0, math.min(fields.accepted, now)) or now
  local tracked = fields.track == true
  if tracked and redis.call('EXISTS', status_key(id)) == 0 then
    set_status(id, OPEN_STATUS_MS, 'status', 'pending', 'created_at', now, 'bot', bot, 'chat', chat)
  end
  local priority = fields.priority == 'interactive' and 'i' or fields.priority == 'bulk' and 'b' or 'n'
  local header = string.format('%s %s %.0f\n', id, tracked and 't' or '-', accepted)
  push(bot .. ':' .. chat, priority, header .. without_token(element, fields, bot))
end

local function put_all(elements, default_bot, from, errors)
  for _, element in ipairs(elements) do
    if element ~= BELL then
      local wrong = put_into_lane(string.match(element, '^%s*(.*)$'), default_bot, from)
      if wrong then
        bury_unread(element, wrong)
        errors[#errors + 1] = wrong
      end
    end
  end
end

-- → the errors of those that were buried
local function drain(most, default_bot)
  local elements = redis.call('LPOP', HANDOFF, most) or {}
  -- The front door is touched only once the hand-off list is empty: what stands there came first.
  if #elements < most then
    for _, element in ipairs(redis.call('LPOP', FRONT, most - #elements) or {}) do
      elements[#elements + 1] = element
    end
  end
  local errors = {}
  put_all(elements, default_bot, FRONT, errors)
  local room = LOOK_AHEAD - tonumber(redis.call('HGET', TOTALS, 'laned:b') or 0) - (counts['laned:b'] or 0)
  if room > 0 and #elements < most then
    put_all(redis.call('LPOP', BULK, math.min(room, most - #elements)) or {}, default_bot, BULK, errors)
  end
  return errors
end
