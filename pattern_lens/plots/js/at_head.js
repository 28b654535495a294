// the head under the pointer, or what is known of it
const layer = Math.round(special_vars.y), head = Math.round(special_vars.x)
return format === "head" ? layers[layer] + heads[head] : more[layer]?.[head] ?? ""
