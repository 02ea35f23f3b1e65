/** The machine did not do what the model did. The message is the failure that is reported. */
export class Mismatch extends Error {}
