"""What the study's prompts ask about: quantities with a formula, tasks of code, of mathematics, of
prose, and of other domains."""

PILOT = """
the sum of two numbers
the average of three numbers
the perimeter of a square
the number of minutes in h hours
the price after a discount of p percent
the volume of a box
the slope between two points
the difference of two squares
the hypotenuse of a right triangle
the number of handshakes among n people
the speed from distance and time
the sum of the angles of a polygon
the cube of a number
the tip on a bill
the number of seconds in d days
the midpoint of two points
"""
"""Quantities on which the wording of the prompts is chosen; they are in no other set."""

QUANTITIES = """
the area of a circle
the area of a triangle
the area of a rectangle
the area of a trapezoid
the area of a ring between two circles
the area of a rhombus from its diagonals
the area of an ellipse
the area of an equilateral triangle
the surface of a sphere
the surface of a cube
the surface of a cylinder
the volume of a sphere
the volume of a cylinder
the volume of a cone
the volume of a pyramid
the volume of a torus
the circumference of a circle
the length of an arc
the diagonal of a rectangle
the diagonal of a cube
the distance between two points
the distance from a point to the origin
the angle between two vectors
the dot product of two vectors
the norm of a vector
the determinant of a 2 by 2 matrix
the trace of a matrix
the roots of a quadratic equation
the discriminant of a quadratic equation
the vertex of a parabola
the solution of a linear equation
the sum of the first n integers
the sum of the first n squares
the sum of the first n cubes
the sum of a geometric series
the sum of an arithmetic series
the nth term of an arithmetic sequence
the nth term of a geometric sequence
the nth triangular number
the nth Fibonacci number
the factorial of n
the binomial coefficient of n and k
the number of permutations of n items
the number of subsets of a set
the number of edges of a complete graph
the number of diagonals of a polygon
the greatest common divisor of two numbers
the least common multiple of two numbers
the harmonic mean of two numbers
the geometric mean of two numbers
the weighted mean of some numbers
the variance of some numbers
the standard deviation of some numbers
the range of some numbers
the z score of a value
the correlation of two lists
the mean squared error
the mean absolute error
the cross entropy of two distributions
the entropy of a distribution
the softmax of some numbers
the sigmoid of a number
the derivative of a power
the derivative of a sine
the integral of a power
the Taylor series of the exponential
the probability of two independent events
the probability of k heads in n tosses
the probability that a die shows six
the expected value of a die
the odds of an event from its probability
the posterior by the rule of Bayes
the compound interest on a deposit
the simple interest on a loan
the monthly payment of a loan
the present value of a payment
the growth of a population
the half life of a substance
the kinetic energy of a body
the potential energy of a body
the momentum of a body
the force on a mass
the gravity between two masses
the period of a pendulum
the height of a falling ball
the range of a thrown ball
the pressure under water
the density of a body
the work done by a force
the power of a motor
the current through a resistor
the resistance of two resistors in parallel
the energy of a photon
the wavelength of a wave
the conversion of Celsius to Fahrenheit
the body mass index of a person
"""
"""Ninety-six quantities: code can compute each, and a formula gives it."""

CODE = """
reverse a string
read a file line by line
count the words of a text
sort a list of names
remove duplicates from a list
merge two dictionaries
parse a date
send a request to a server
write rows to a CSV file
open a JSON file
find the longest word
check a password
rename all files of a folder
draw a progress bar
make a class for a stack
make a class for a queue
walk through a binary tree
search a sorted list
flatten a nested list
group people by city
filter even numbers
split a text into sentences
replace tabs by spaces
print a table
catch an error and try again
time how long a call takes
log messages to a file
read arguments of the command line
join two tables on a key
store users in a database
test a function with pytest
hash a file
shuffle a deck of cards
pick a random element
validate an email address
download a page
list the links of a page
resize an image
plot a line
count letters in a string
convert a list to a set
make a decorator that prints calls
make a generator of lines
make a context manager for a timer
call a function in a thread
copy a folder
watch a file for changes
build a menu for a shop
play rock, paper, scissors
roll two dice
guess a number
translate text to Morse code
encode text with a shift of letters
check brackets in a string
find a path through a maze
make a linked list
delete empty lines of a file
compare two files
zip a folder
show a calendar
"""
"""Sixty tasks whose answers are code."""

MATHEMATICS = """
the quadratic formula
the theorem of Pythagoras
the binomial theorem
the product rule of derivatives
the chain rule of derivatives
the quotient rule of derivatives
integration by parts
the fundamental theorem of calculus
the definition of a limit
the definition of a derivative
the definition of continuity
the law of cosines
the law of sines
the addition formula of the sine
the double angle formula of the cosine
the identity of Euler
the geometric series
the harmonic series
the Taylor series of the sine
the Taylor series of the logarithm
the power rule of integrals
the area under a parabola
the equation of a circle
the equation of a line through two points
the equation of an ellipse
the equation of a plane
the distance from a point to a line
the cross product of two vectors
the inverse of a 2 by 2 matrix
the eigenvalues of a 2 by 2 matrix
the rule of Cramer
the triangle inequality
the inequality of Cauchy and Schwarz
the inequality of arithmetic and geometric means
the theorem of Bayes
the law of total probability
the variance of a sum
the binomial distribution
the normal density
the Poisson distribution
the central limit theorem
the expectation of a sum
the prime number theorem
the little theorem of Fermat
the Euclidean algorithm
the sum of a telescoping series
the logarithm of a product
the change of base of logarithms
the rules of exponents
the square of a sum
the difference of two cubes
the roots of unity
the modulus of a complex number
the formula of de Moivre
the gamma function
the Fourier series of a square wave
the Laplace transform of an exponential
the heat equation
the wave equation
the differential equation of growth
"""
"""Sixty items whose statements are formulas."""

PROSE = """
a walk in the rain
an old bridge
a letter to a friend
the smell of bread
a lost umbrella
a summer by the sea
the first day at school
a quiet library
a storm at night
a garden in spring
the taste of coffee
a train station at dawn
a grandmother's kitchen
a broken promise
a stray cat
the sound of bells
an empty theatre
a village market
a long winter
a painter and her model
a journey by ship
the death of a king
a birthday party
the history of tea
the life of a shepherd
the manners of a guest
a speech at a wedding
a visit to a museum
a dream of flying
a quarrel between brothers
the colours of autumn
a fisherman's morning
the end of a war
a secret in an attic
a dancer's farewell
the first snow
a forgotten language
the kindness of strangers
an honest thief
a lighthouse keeper
the habits of birds
a country road
a night in the desert
a house without windows
the fear of heights
a song from childhood
a bowl of soup
the patience of a teacher
a black dog
a mountain village
a broken clock
the meaning of home
an unexpected guest
a ride on a bicycle
a glass of water
a day without a phone
the wisdom of the old
a river in flood
a small hotel
a postcard from abroad
"""
"""Sixty subjects for a paragraph of prose."""

OTHERS = {
    "facts": """
the capital of France
the longest river of Africa
the author of Hamlet
the colour of the sky
the largest planet
the inventor of the telephone
the language of Brazil
the currency of Japan
the boiling of water
the first man on the moon
the animal with a trunk
the king of the jungle
the opposite of hot
the season after winter
the painter of the Mona Lisa
""",
    "advice": """
sleeping better
learning a language
saving money
a job interview
a sore throat
making friends
training a dog
growing tomatoes
studying for a test
eating less sugar
a first date
moving to a new city
speaking in public
quitting smoking
waking up early
""",
    "lists": """
five fruits
three pets
four seasons
six countries of Europe
five musical instruments
four colours
five vegetables
three oceans
six professions
five sports
four gifts for a child
three breakfast dishes
five trees
four means of transport
five items for a picnic
""",
    "dialogue": """
a waiter and a guest
a doctor and a patient
a mother and her son
two old friends
a thief and a policeman
a teacher and a pupil
a king and a beggar
a cat and a mouse
a tourist and a guide
a baker and a customer
two neighbours
a pilot and a passenger
a judge and a witness
a robot and a child
a farmer and a merchant
""",
}
"""Domain → fifteen subjects, on which steering should change nothing."""


def lines(text: str) -> list[str]:
    """The lines of a block, without blank ones."""
    return text.strip().splitlines()
