/** Most bytes of a line for each text that a client chooses: address, user agent, id of the request, name. */
export const MAX_FIELD_BYTES = 256;
