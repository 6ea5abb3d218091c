/** Whoever calls while authentication is off. */
export const anonymous = "anonymous";
