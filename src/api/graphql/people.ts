/** Users are known by their e-mail until accounts come. */
export const userView = (email: string) => ({
  __typename: 'User',
  id: email,
  email,
  name: email.split('@')[0] ?? email,
  enablePaidHobby: false,
  agreedToProviderTos: false,
})
